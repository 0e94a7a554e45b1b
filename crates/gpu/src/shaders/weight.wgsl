// A weight as the values are multiplied by it. Nothing of a token that is not seen may come in, be it no number.
fn weight_of(weight: f32, block: Block, token: u32, seen: bool) -> f32 {
    if (!seen) { return 0.0; }
    return rounded(weight) * value_scale(block, token);
}
