// Workgroup memory of the matrix units as vectors, which threads read and write whole.
const EACH: u32 = 1u; // elements of four values
var<workgroup> weights: array<vec4<f16>, SIDE * STRIDE>;     // [SIDE columns][32 values and padding]
var<workgroup> rows_of_x: array<vec4<f16>, SIDE * STRIDE>;   // [SIDE rows][32 values and padding]
var<workgroup> pieces: array<vec4<f32>, SIDE / 16u * TILE * STRIDE>; // [subgroups][TILE rows][32 columns and padding]

fn put_weights(at: u32, values: vec4<f16>) { weights[at] = values; }
fn put_rows(at: u32, values: vec4<f16>) { rows_of_x[at] = values; }
fn piece_at(at: u32) -> vec4<f32> { return pieces[at]; }
