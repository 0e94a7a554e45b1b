"""What the demo is trained on: words, fonts and colours, drawn with a record of where every character stands."""
