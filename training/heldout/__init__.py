"""A second renderer, which shares no code with `drawing`: other words, faces and layouts, drawn by cairo and matplotlib."""
