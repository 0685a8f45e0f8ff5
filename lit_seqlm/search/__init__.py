"""Near neighbours among remembered states: exact or indexed, with a bounded memory if asked."""
