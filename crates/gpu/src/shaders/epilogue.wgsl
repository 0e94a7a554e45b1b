// The operation on a product before it is written: `Epilogue` of the Backend trait.
const STORE: u32 = 0u;
const ADD: u32 = 1u;
const GELU: u32 = 2u;
const QUICK_GELU: u32 = 3u;
const SILU_MUL: u32 = 4u;

// Below 1 the Maclaurin series, whose terms are under 1e-8 after fourteen; above 1 the continued fraction of erfc,
// evaluated back from its fortieth level. Both are within 2e-7.
fn erf(x: f32) -> f32 {
    let a = abs(x);
    if (a < 1.0) {
        var term = x;
        var sum = x;
        for (var i = 1u; i < 14u; i += 1u) {
            term = -term * x * x / f32(i);
            sum += term / f32(2u * i + 1u);
        }
        return sum * 1.1283791670955126;
    }
    if (a > 5.0) { return sign(x); }
    var fraction = 0.0;
    for (var i = 40u; i > 0u; i -= 1u) { fraction = f32(i) * 0.5 / (a + fraction); }
    return sign(x) * (1.0 - exp(-a * a) / ((a + fraction) * 1.7724538509055159));
}
fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-x)); }

// `before` is the output's earlier value, `up` the product of the column by which SiluMul multiplies.
fn apply(kind: u32, y: f32, before: f32, up: f32) -> f32 {
    switch kind {
        case ADD: { return before + y; }
        case GELU: { return 0.5 * y * (1.0 + erf(y * 0.7071067811865476)); }
        case QUICK_GELU: { return y * sigmoid(1.702 * y); }
        case SILU_MUL: { return y * sigmoid(y) * up; }
        default: { return y; }
    }
}
