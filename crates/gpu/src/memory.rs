//! The memory of a card, which wgpu does not report.

/// Percentage of a driver's budget that this program uses.
const BUDGET_PERCENT: u64 = 97;
/// The size of the blocks that wgpu allocates for buffers up to this size; a larger buffer has memory of its own, no
/// more than it needs. It is wgpu's minimum. Matrices of 5 to 50 MB do not fill larger blocks: with wgpu's default
/// blocks of 128 and 256 MB, Phi-3.5-vision would leave 0.4 to 3.7 GB unused.
pub(crate) const BLOCK_BYTES: u64 = 4 << 20;
/// Memory held in reserve: blocks are not completely full (`device.rs` has a test), and wgpu keeps copies on the host
/// for a while.
pub(crate) const SPARE_BYTES: u64 = 256 << 20;

/// Bytes of a card's memory, or of what it shares with the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// Bytes available for buffers now; ignores memory in use if the driver does not report it.
    pub(crate) room: u64,
}

impl Memory {
    /// Computes the memory from the driver's `budget` for the program and its `usage` of it. `usage` is this program's
    /// alone; the driver subtracts other programs' memory from the budget.
    fn new(total: u64, budget: u64, usage: u64) -> Self {
        Self { total, room: (budget / 100 * BUDGET_PERCENT).saturating_sub(usage) }
    }

    /// Returns the bytes that are certainly available now.
    pub(crate) fn available(self) -> u64 {
        self.room.saturating_sub(SPARE_BYTES)
    }
}

/// Returns the memory of `adapter`; `None` if it is unknown.
pub(crate) fn of(adapter: &wgpu::Adapter) -> Option<Memory> {
    #[cfg(target_vendor = "apple")]
    return metal(adapter);
    #[cfg(windows)]
    return vulkan(adapter).or_else(|| dx12(adapter));
    #[cfg(not(any(windows, target_vendor = "apple")))]
    vulkan(adapter)
}

/// Queries Vulkan for the card's largest own heap.
#[cfg(not(target_vendor = "apple"))]
#[expect(unsafe_code, reason = "a question to the Vulkan driver")]
fn vulkan(adapter: &wgpu::Adapter) -> Option<Memory> {
    use ash::vk;
    // SAFETY: the handle is only queried, while `adapter` keeps it alive.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let physical = hal.raw_physical_device();
    let instance = hal.shared_instance();
    if instance.instance_api_version() < vk::API_VERSION_1_1 {
        return None; // lacks that query
    }
    let budget_known = hal.physical_device_capabilities().supports_extension(ash::ext::memory_budget::NAME);
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut found = vk::PhysicalDeviceMemoryProperties2::default();
    if budget_known {
        found = found.push_next(&mut budget);
    }
    // SAFETY: `physical` belongs to `instance`, which is at least Vulkan 1.1; the budget is queried only if the driver
    // supports it.
    unsafe { instance.raw_instance().get_physical_device_memory_properties2(physical, &mut found) };
    let properties = found.memory_properties;
    let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
    let own = |(_, heap): &(usize, &vk::MemoryHeap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    let (index, heap) = heaps.iter().enumerate().filter(own).max_by_key(|(_, heap)| heap.size)?;
    let (budget, usage) =
        if budget_known { (budget.heap_budget[index], budget.heap_usage[index]) } else { (heap.size, 0) };
    Some(Memory::new(heap.size, budget, usage))
}

/// Queries DirectX 12 for the part of the card's local memory that Windows grants this program.
#[cfg(windows)]
#[expect(unsafe_code, reason = "a question to Windows")]
fn dx12(adapter: &wgpu::Adapter) -> Option<Memory> {
    // SAFETY: the handle is only queried, while `adapter` keeps it alive.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    // 0 is the card's local memory; 1 would be the memory it shares with the processor
    let info = hal.raw_adapter().query_video_memory_info(Default::default()).ok()?;
    Some(Memory::new(info.Budget, info.Budget, info.CurrentUsage))
}

/// Queries Metal for the recommended maximum of the memory that the card shares with the processor.
#[cfg(target_vendor = "apple")]
#[expect(unsafe_code, reason = "a question to Metal")]
fn metal(adapter: &wgpu::Adapter) -> Option<Memory> {
    use objc2_metal::MTLDevice;
    // SAFETY: the handle is only queried, while `adapter` keeps it alive.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    let device = hal.raw_device();
    let (budget, usage) = (device.recommendedMaxWorkingSetSize(), device.currentAllocatedSize() as u64);
    Some(Memory::new(budget, budget, usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_less_than_there_is_room_for() {
        const GB: u64 = 1 << 30;
        let memory = |budget, usage| Memory::new(12 * GB, budget, usage);
        let room = 8 * GB / 100 * 97 - GB;
        assert_eq!(memory(8 * GB, GB), Memory { total: 12 * GB, room });
        assert_eq!(memory(8 * GB, GB).available(), room - SPARE_BYTES);
        // another program has taken memory that this one counted as its own
        assert_eq!((memory(4 * GB, 5 * GB).room, memory(4 * GB, 5 * GB).available()), (0, 0));
        assert_eq!((memory(100 << 20, 0).room, memory(100 << 20, 0).available()), (97 << 20, 0));
    }
}
