//! Chooses the plan that fits the memory. In: the plans of one run, the fastest first, and how much memory there is. Out: the
//! plan to follow, or what the run needs at least. `prune::job` uses it.

use super::{Plan, StatePlace};
use crate::error::{ConfigError, Error, Result};
use crate::report::bytes;

/// How much memory a run may take. Without a number there is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Budgets {
    /// Bytes on the device, as asked for.
    pub(crate) device: Option<u64>,
    /// Bytes of RAM, as asked for.
    pub(crate) host: Option<u64>,
    /// Bytes of RAM that are free now. They count if none were asked for.
    pub(crate) free: Option<u64>,
    /// Whether the device computes in RAM. Then both limits are on the same memory, and plans need as much of the one as of the
    /// other.
    pub(crate) device_is_host: bool,
}

impl Budgets {
    /// The first plan that fits.
    ///
    /// The tokens computed at once shape the last bits of a result. So the device's budget decides on them, and RAM chooses
    /// among the plans with as many tokens. Only where the device is the host, and RAM was asked to be less than all of these
    /// need, are there fewer tokens. The RAM that is free changes no result and refuses no run.
    ///
    /// # Errors
    /// When no plan fits what was asked for.
    pub(crate) fn fit(self, plans: &[Plan]) -> Result<Plan> {
        let on_device: Vec<&Plan> = plans
            .iter()
            .filter(|plan| self.device.is_none_or(|most| plan.device_bytes <= most))
            .collect();
        let Some(first) = on_device.first().copied() else {
            let least = plans
                .iter()
                .min_by_key(|plan| (plan.device_bytes, plan.host_bytes));
            return Err(too_small("‹memory-budget›", least, self.device_is_host));
        };
        let same: Vec<&Plan> = on_device
            .iter()
            .filter(|plan| plan.batch_tokens == first.batch_tokens)
            .copied()
            .collect();
        if let Some(most) = self.host {
            let fits = |plan: &&&Plan| plan.host_bytes <= most;
            let found = same.iter().find(fits).or_else(|| on_device.iter().find(fits));
            return match found {
                Some(plan) => Ok(Plan::clone(plan)),
                None => {
                    let least = on_device.iter().min_by_key(|plan| plan.host_bytes).copied();
                    Err(too_small("‹host-memory›", least, self.device_is_host))
                }
            };
        }
        let Some(free) = self.free.filter(|free| first.host_bytes > *free) else {
            return Ok(first.clone());
        };
        let found = same.iter().find(|plan| plan.host_bytes <= free);
        let smallest = || same.iter().min_by_key(|plan| plan.host_bytes);
        let mut plan = Plan::clone(found.or_else(smallest).unwrap_or(&first));
        plan.free_host_bytes = Some(free);
        Ok(plan)
    }
}

/// What the run needs of both at least, and what to do.
fn too_small(setting: &'static str, least: Option<&Plan>, device_is_host: bool) -> Error {
    let Some(plan) = least else {
        return Error::internal("a run without a plan");
    };
    let ram = bytes(plan.host_bytes);
    let needed = if device_is_host {
        format!("{ram} of RAM")
    } else {
        format!("{} on the device and {ram} of RAM", bytes(plan.device_bytes))
    };
    let advice = match plan.activations {
        StatePlace::Disk => "shorter sequences and a smaller model need less",
        _ => "it needs less if hidden states may wait on disk, or with fewer samples",
    };
    Error::from(ConfigError::Setting {
        setting,
        reason: format!("the run needs at least {needed}; {advice}"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use StatePlace::{Device, Disk, Host};

    fn plan(activations: StatePlace, offload: bool, batch_tokens: usize, device: u64, host: u64) -> Plan {
        Plan {
            operators: Vec::new(),
            weights: 0,
            zeros: 0,
            layers: 1,
            tokens: 0,
            evaluation_tokens: 0,
            batch_tokens,
            activations,
            offload,
            disk_bytes: 0,
            activation_disk_bytes: 0,
            device_bytes: device,
            host_bytes: host,
            free_host_bytes: None,
            seconds: None,
            structure: None,
        }
    }

    /// As a GPU has them: only hidden states and offloaded matrices need RAM, and only the device sees the batch.
    fn on_gpu() -> Vec<Plan> {
        vec![
            plan(Device, false, 8, 48, 5),
            plan(Device, false, 4, 46, 5),
            plan(Host, false, 8, 9, 42),
            plan(Host, false, 4, 8, 42),
            plan(Disk, false, 8, 9, 5),
            plan(Disk, false, 4, 8, 5),
            plan(Host, true, 8, 6, 46),
            plan(Host, true, 4, 5, 46),
            plan(Disk, true, 8, 6, 9),
            plan(Disk, true, 4, 5, 9),
        ]
    }

    /// As a host has them: one memory.
    fn on_cpu() -> Vec<Plan> {
        vec![
            plan(Device, false, 8, 63, 63),
            plan(Device, false, 4, 61, 61),
            plan(Disk, false, 8, 13, 13),
            plan(Disk, false, 4, 11, 11),
            plan(Disk, true, 8, 10, 10),
            plan(Disk, true, 4, 8, 8),
        ]
    }

    /// Device, asked for, free.
    fn budgets(device: u64, host: u64, free: u64) -> Budgets {
        let given = |bytes| Some(bytes).filter(|bytes| *bytes > 0);
        Budgets {
            device: given(device),
            host: given(host),
            free: given(free),
            device_is_host: false,
        }
    }

    fn chosen(plans: &[Plan], budgets: Budgets) -> (StatePlace, bool, usize, Option<u64>) {
        let plan = budgets.fit(plans).unwrap();
        (
            plan.activations,
            plan.offload,
            plan.batch_tokens,
            plan.free_host_bytes,
        )
    }

    #[test]
    fn a_gpu_s_hidden_states_wait_where_both_budgets_allow() {
        for (device, host, free, expected) in [
            (0, 0, 0, (Device, false, 8, None)),
            (0, 0, 6, (Device, false, 8, None)),
            (46, 0, 100, (Device, false, 4, None)),
            (24, 0, 0, (Host, false, 8, None)),
            (24, 42, 1, (Host, false, 8, None)),
            (24, 41, 100, (Disk, false, 8, None)),
            (24, 0, 32, (Disk, false, 8, Some(32))),
            (8, 0, 32, (Disk, false, 4, Some(32))),
            (5, 46, 0, (Host, true, 4, None)),
            (5, 0, 10, (Disk, true, 4, Some(10))),
            // Nothing fits what is free: the smallest that fits what was asked for.
            (24, 0, 3, (Disk, false, 8, Some(3))),
            (5, 0, 3, (Disk, true, 4, Some(3))),
            (0, 0, 3, (Device, false, 8, Some(3))),
        ] {
            let given = budgets(device, host, free);
            assert_eq!(chosen(&on_gpu(), given), expected, "{given:?}");
        }
    }

    /// The smaller of the two counts. Free RAM moves hidden states before it takes tokens from a batch, and takes none.
    #[test]
    fn a_cpu_has_one_memory() {
        for (device, host, free, expected) in [
            (0, 0, 0, (Device, false, 8, None)),
            (61, 0, 0, (Device, false, 4, None)),
            (0, 61, 0, (Disk, false, 8, None)),
            (61, 12, 0, (Disk, false, 4, None)),
            (12, 61, 0, (Disk, false, 4, None)),
            (0, 13, 0, (Disk, false, 8, None)),
            (0, 10, 0, (Disk, true, 8, None)),
            (0, 8, 0, (Disk, true, 4, None)),
            (0, 0, 62, (Disk, false, 8, Some(62))),
            (0, 0, 10, (Disk, true, 8, Some(10))),
            (0, 0, 8, (Disk, true, 8, Some(8))),
            (61, 0, 20, (Disk, false, 4, Some(20))),
        ] {
            let given = budgets(device, host, free);
            assert_eq!(chosen(&on_cpu(), given), expected, "{given:?}");
        }
    }

    /// Whatever RAM is free, as many tokens are computed at once as without looking.
    #[test]
    fn free_memory_changes_no_result() {
        for plans in [on_gpu(), on_cpu()] {
            for device in [0, 8, 10, 12, 24, 46, 61, 100] {
                let tokens = |free| budgets(device, 0, free).fit(&plans).unwrap().batch_tokens;
                assert!((1..70).all(|free| tokens(free) == tokens(0)), "{device}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_it_needs() {
        let refused = |plans: &[Plan], budgets: Budgets| budgets.fit(plans).unwrap_err().to_string();
        let error = refused(&on_gpu(), budgets(4, 0, 0));
        assert!(
            error.contains("memory_budget") && error.contains("5 B on the device and 9 B of RAM"),
            "{error}"
        );
        let error = refused(&on_gpu(), budgets(24, 4, 0));
        assert!(
            error.contains("host_memory") && error.contains("9 B on the device and 5 B of RAM"),
            "{error}"
        );
        // Each for itself would do.
        let error = refused(&on_gpu(), budgets(6, 8, 0));
        assert!(
            error.contains("host_memory") && error.contains("6 B on the device and 9 B of RAM"),
            "{error}"
        );
        let error = refused(&on_gpu()[2..4], budgets(24, 20, 0));
        assert!(error.contains("may wait on disk"), "{error}");
        let on_host = Budgets {
            device_is_host: true,
            ..budgets(0, 4, 0)
        };
        let error = refused(&on_cpu(), on_host);
        assert!(error.contains("at least 8 B of RAM;"), "{error}");
    }
}
