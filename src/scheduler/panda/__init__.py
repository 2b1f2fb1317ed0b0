"""PanDA: what ships, the embedded site, the dataset catalogue."""
