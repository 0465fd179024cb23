"""The gateway's HTTP edge: signalling, validation, the page, and the admin port."""
