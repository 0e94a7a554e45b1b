// The weight by which values are multiplied. Tokens that are not seen must not contribute, even if they are non-finite.
fn weight_of(weight: f32, block: Block, token: u32, seen: bool) -> f32 {
    if (!seen) { return 0.0; }
    return rounded(weight) * value_scale(block, token);
}
