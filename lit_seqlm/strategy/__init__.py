"""How several devices train one model."""
