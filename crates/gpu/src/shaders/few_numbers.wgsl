struct Numbers { cols: u32, dim: u32, heads: u32, kv_heads: u32, first_entry: u32, chunks: u32, scale: u32 }
var<immediate> n: Numbers;
