"""The published `exedev` client, unmodified, against ussycode."""
