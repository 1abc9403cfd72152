// A click on the address, BibTeX or CSL of something copies it. Without this script the address leads there, and the files
// are downloaded.
document.addEventListener("click", async (event) => {
  const link = event.target.closest?.(".cite a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !navigator.clipboard) return;
  event.preventDefault();
  try {
    await navigator.clipboard.writeText(await wanted(link));
    say(link, "copied");
  } catch {
    location.href = link.href;
  }
});

async function wanted(link) {
  if (!link.hasAttribute("download")) return link.href;
  const answer = await fetch(link.href);
  if (!answer.ok) throw new Error(answer.statusText);
  return answer.text();
}

function say(link, word) {
  const place = link.closest(".cite");
  const told = place.querySelector("output") ?? place.appendChild(document.createElement("output"));
  told.value = `${link.textContent} ${word}`;
}
