// Joins the chunks of `attend_few.wgsl`: a workgroup handles one head of one row.
struct Numbers { dim: u32, heads: u32, first_entry: u32, chunks: u32 }
var<immediate> n: Numbers;
@group(0) @binding(0) var<storage, read> parts: array<f32>;      // [entries, heads, chunks, dim + 2]
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;  // [rows, heads * dim]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
    let head = wg.x;
    let entry = 4u * (n.first_entry + wg.y);
    let chunks = (batch[entry + 1u] / 64u) / CHUNK_BLOCKS + 1u;
    let width = n.dim + 2u;
    let first = (wg.y * n.heads + head) * n.chunks * width;
    var largest = LOWEST;
    var total = 0.0;
    var sum = vec4<f32>(0.0);
    for (var chunk = 0u; chunk < chunks; chunk += 1u) {
        let at = first + chunk * width;
        let joined = join(largest, total, parts[at + n.dim], parts[at + n.dim + 1u]);
        largest = joined.largest;
        total = joined.total;
        for (var i = 0u; i < 4u; i += 1u) {
            let d = t + 64u * i;
            if (d < n.dim) { sum[i] = fma(parts[at + d], joined.added, sum[i] * joined.before); }
        }
    }
    for (var i = 0u; i < 4u; i += 1u) {
        let d = t + 64u * i;
        if (d < n.dim) { out[(batch[entry] * n.heads + head) * n.dim + d] = sum[i] / total; }
    }
}
