//! Picture files to tiles.
