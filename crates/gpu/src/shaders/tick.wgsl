// Ends a submission: counts it. What the last kernel wrote is read, so that this one begins when that one has ended.
@group(0) @binding(0) var<storage, read_write> done: array<u32>; // submissions, then what was read
@group(0) @binding(1) var<storage, read> last: array<u32>;

@compute @workgroup_size(1)
fn main() {
    done[1] = last[0];
    done[0] += 1u;
}
