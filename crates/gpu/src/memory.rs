//! How much memory a card has, which wgpu does not tell.

/// Bytes of a card's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// What can be had at this moment; `total` where the driver does not tell.
    pub(crate) available: u64,
}

/// The memory of `adapter`'s largest heap of its own, by Vulkan alone; `None` where it cannot be told.
#[cfg(not(target_vendor = "apple"))]
#[expect(unsafe_code, reason = "a question to the Vulkan driver")]
pub(crate) fn of(adapter: &wgpu::Adapter) -> Option<Memory> {
    use ash::vk;
    // SAFETY: the handle is only asked questions, while `adapter` keeps it alive.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let physical = hal.raw_physical_device();
    let instance = hal.shared_instance();
    if instance.instance_api_version() < vk::API_VERSION_1_1 {
        return None; // which has no such question
    }
    let budget_known = hal.physical_device_capabilities().supports_extension(ash::ext::memory_budget::NAME);
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut found = vk::PhysicalDeviceMemoryProperties2::default();
    if budget_known {
        found = found.push_next(&mut budget);
    }
    // SAFETY: `physical` is of `instance`, which is of Vulkan 1.1 at least; the budget is asked for where the driver knows
    // of it.
    unsafe { instance.raw_instance().get_physical_device_memory_properties2(physical, &mut found) };
    let properties = found.memory_properties;
    let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
    let own = |(_, heap): &(usize, &vk::MemoryHeap)| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    let (index, heap) = heaps.iter().enumerate().filter(own).max_by_key(|(_, heap)| heap.size)?;
    let free = budget.heap_budget[index].saturating_sub(budget.heap_usage[index]);
    Some(Memory { total: heap.size, available: if budget_known { free } else { heap.size } })
}

/// Apple's cards share the host's memory, which others tell.
#[cfg(target_vendor = "apple")]
pub(crate) fn of(_: &wgpu::Adapter) -> Option<Memory> {
    None
}
