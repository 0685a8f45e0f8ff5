"""From files of molecules or proteins to shards of tokens: canonical, each once, shuffled, counted."""
