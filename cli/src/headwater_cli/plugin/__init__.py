"""`kubectl headwater` and `headwater explain|plan`: what a cluster does and why, by the user's own rights."""
