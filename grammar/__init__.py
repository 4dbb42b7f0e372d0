"""The grammar and its tables; the library and the devices stand in folders of it."""
