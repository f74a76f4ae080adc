"""Control's end of the feed to the HTTPS edges."""
