//! What a card can do at most, measured by the simplest of kernels: bytes read from its memory, products of four bytes summed in
//! integers (`dot4I8Packed`), and multiplications with additions in f32. A device of wgpu's own, without the backend.

use crate::Figures;
use std::time::Instant;

const TEXT: &str = "
@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
const THREADS: u32 = 256u;

// every thread reads what its neighbours do not, 16 bytes at a time; what is read decides about what is written
@compute @workgroup_size(256)
fn read_all(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let step = groups.x * THREADS;
    var seen = vec4<u32>(0u);
    for (var i = id.x; i < arrayLength(&source); i += 4u * step) {
        seen ^= source[i] ^ source[i + step] ^ source[i + 2u * step] ^ source[i + 3u * step];
    }
    if (all(seen == vec4<u32>(0x9e3779b9u))) { out[id.x % 64u] = id.x; }
}

// eight sums that do not wait for each other, 256 times
@compute @workgroup_size(256)
fn dot4(@builtin(global_invocation_id) id: vec3<u32>) {
    var a = array<i32, 8>();
    var x = id.x;
    for (var i = 0u; i < 256u; i += 1u) {
        for (var j = 0u; j < 8u; j += 1u) { a[j] += dot4I8Packed(x ^ (j * 0x01020304u), x + i); }
        x = x * 3u + 1u;
    }
    out[id.x % 64u] = u32(a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7]);
}

@compute @workgroup_size(256)
fn fma32(@builtin(global_invocation_id) id: vec3<u32>) {
    var a = array<f32, 8>();
    let x = f32(id.x % 17u) * 1e-3;
    for (var i = 0u; i < 256u; i += 1u) {
        for (var j = 0u; j < 8u; j += 1u) { a[j] = fma(a[j], x, f32(j)); }
    }
    out[id.x % 64u] = bitcast<u32>(a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7]);
}
";

/// Operations of a thread of `dot4`: 256 x 8 products of four, each a multiplication and an addition.
const DOT4_OPERATIONS: f64 = 256.0 * 8.0 * 8.0;
/// The same of `fma32`.
const FMA_OPERATIONS: f64 = 256.0 * 8.0 * 2.0;

struct Bare {
    device: wgpu::Device,
    queue: wgpu::Queue,
    source_bytes: u64,
    group: wgpu::BindGroup,
    layout: wgpu::PipelineLayout,
    module: wgpu::ShaderModule,
}

/// Tells the peaks of the card called `name`; of a card in software with less work.
pub(crate) fn tell(name: &str, tiny: bool, figures: &Figures) {
    let Some(bare) = open(name, tiny) else {
        return eprintln!("the peaks of {name} are not measured: wgpu does not open it");
    };
    let groups = if tiny { 64 } else { 16_384 };
    let seconds = bare.seconds("read_all", if tiny { 64 } else { 4096 });
    figures.tell("peak: memory read", seconds, bare.source_bytes as f64 / seconds / 1e9, "GB/s");
    let threads = f64::from(groups * 256);
    let seconds = bare.seconds("dot4", groups);
    figures.tell("peak: dot4", seconds, threads * DOT4_OPERATIONS / seconds / 1e12, "TFLOP/s");
    let seconds = bare.seconds("fma32", groups);
    figures.tell("peak: f32", seconds, threads * FMA_OPERATIONS / seconds / 1e12, "TFLOP/s");
}

fn open(name: &str, tiny: bool) -> Option<Bare> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name.trim() == name)?;
    let limits = adapter.limits();
    let largest = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    // past the caches of any card; whole rounds of 4 x 4,096 x 256 reads of 16 bytes
    let source_bytes = if tiny { 16 << 20 } else { largest.min(1 << 30) >> 28 << 28 };
    let descriptor = wgpu::DeviceDescriptor { required_limits: limits, ..Default::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).ok()?;
    let buffer = |size| {
        let usage = wgpu::BufferUsages::STORAGE;
        device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
    };
    let (source, out) = (buffer(source_bytes.max(16 << 20)), buffer(256));
    let entry = |binding, read_only| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    };
    let entries = &[entry(0, true), entry(1, false)];
    let bindings = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries });
    let entries = &[
        wgpu::BindGroupEntry { binding: 0, resource: source.as_entire_binding() },
        wgpu::BindGroupEntry { binding: 1, resource: out.as_entire_binding() },
    ];
    let group =
        device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &bindings, entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&bindings)],
        immediate_size: 0,
    });
    let module = module(&device);
    Some(Bare { source_bytes: source.size(), device, queue, group, layout, module })
}

/// With the checks that the backend's kernels have.
#[expect(unsafe_code, reason = "wgpu asks for it: loops are not bounded by a counter of its own")]
fn module(device: &wgpu::Device) -> wgpu::ShaderModule {
    let source = wgpu::ShaderSource::Wgsl(TEXT.into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: None, source };
    let checks =
        wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: without that counter every loop must end, and does: it counts to a constant, or by at most 2^22 to at most 2^26.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}

impl Bare {
    /// Seconds of one call, the least of five rounds of four.
    fn seconds(&self, entry: &str, groups: u32) -> f64 {
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&self.layout),
            module: &self.module,
            entry_point: Some(entry),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        const CALLS: u32 = 4;
        let round = || {
            let start = Instant::now();
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &self.group, &[]);
            (0..CALLS).for_each(|_| pass.dispatch_workgroups(groups, 1, 1));
            drop(pass);
            self.queue.submit([encoder.finish()]);
            self.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            start.elapsed().as_secs_f64() / f64::from(CALLS)
        };
        (0..5).map(|_| round()).fold(f64::MAX, f64::min)
    }
}
