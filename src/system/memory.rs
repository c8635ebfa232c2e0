//! The memory that the process has now and had at most, where the system tells it.

/// Resident bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl Memory {
    /// What the system says; `None` where it does not.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |field: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes * 1024)
        };
        let resident = bytes("VmRSS:")?;
        // The kernel counts in batches, and the two need not fit.
        let peak = bytes("VmHWM:")?.max(resident);
        Some(Self { resident, peak })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words() {
        let status = "Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n";
        let memory = Memory::parse(status).unwrap();
        assert_eq!(
            memory,
            Memory {
                resident: 1_024_000,
                peak: 2_048_000
            }
        );
        assert_eq!(Memory::parse("VmRSS:\t1000 kB\n"), None);
    }
}
