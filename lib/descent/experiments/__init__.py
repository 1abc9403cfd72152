"""One package per chapter: frozen configurations, runs, and the estimates each claim is judged by."""
