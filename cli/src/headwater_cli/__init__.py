"""Tools for those who run Headwater."""
