// Ends a submission by counting it. Reads a buffer that the last kernel wrote, so that this kernel begins after that
// one has ended.
@group(0) @binding(0) var<storage, read_write> done: array<u32>; // submissions, then the word that was read
@group(0) @binding(1) var<storage, read> last: array<u32>;

@compute @workgroup_size(1)
fn main() {
    done[1] = last[0];
    done[0] += 1u;
}
