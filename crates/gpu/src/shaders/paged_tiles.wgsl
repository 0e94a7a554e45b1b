// Tiles of up to 16 rows of one sequence, as batch.rs lists them.
struct Numbers { cols: u32, dim: u32, heads: u32, kv_heads: u32, first_tile: u32, scale: u32 }
var<immediate> n: Numbers;
struct Tile { row: u32, rows: u32, seen: u32, table: u32 }
fn tile_at(index: u32) -> Tile {
    let at = n.first_tile + 4u * index;
    return Tile(batch[at], batch[at + 1u], batch[at + 2u] + 1u, batch[at + 3u]);
}
// Returns the number of tokens that row `i` of the tile sees.
fn seen_by(tile: Tile, i: u32) -> u32 { return tile.seen + i; }
fn kv_head(head: u32) -> u32 { return head / (n.heads / n.kv_heads); }
fn block_of_tile(tile: Tile, index: u32, head: u32) -> Block { return block_at(tile.table, index, head); }
