// The same as single values: Metal's matrices cannot be loaded from arrays of vectors.
const EACH: u32 = 4u;
var<workgroup> weights: array<f16, 4u * SIDE * STRIDE>;
var<workgroup> rows_of_x: array<f16, 4u * SIDE * STRIDE>;
var<workgroup> pieces: array<f32, SIDE / 4u * TILE * STRIDE>;

fn put_weights(at: u32, values: vec4<f16>) {
    for (var c = 0u; c < 4u; c += 1u) { weights[4u * at + c] = values[c]; }
}
fn put_rows(at: u32, values: vec4<f16>) {
    for (var c = 0u; c < 4u; c += 1u) { rows_of_x[4u * at + c] = values[c]; }
}
fn piece_at(at: u32) -> vec4<f32> {
    return vec4<f32>(pieces[4u * at], pieces[4u * at + 1u], pieces[4u * at + 2u], pieces[4u * at + 3u]);
}
