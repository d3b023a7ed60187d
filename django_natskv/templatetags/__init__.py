"""Tags for templates. Owns nothing itself; see ``natskv``."""
