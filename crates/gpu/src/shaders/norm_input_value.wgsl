fn prepare(row: u32, t: u32) -> Moments { return moments_of(row, t); }
fn input(row: u32, i: u32, moments: Moments) -> f32 { return normed(x[row * n.cols + i], moments, i); }
