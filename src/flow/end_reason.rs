//! Why a flow ended.

/// Why a flow ended (IPFIX `flowEndReason`, RFC 5102, section 5.11.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEndReason {
    /// No packet for the idle timeout.
    IdleTimeout,
    /// Open for longer than the active timeout.
    ActiveTimeout,
    /// The transport said so: FIN, RST, socket closed.
    EndOfFlow,
    /// The capture ended, or Egret stopped.
    ForcedEnd,
    /// The table was full.
    LackOfResources,
}

impl FlowEndReason {
    /// The word for it in flows.
    pub fn name(self) -> &'static str {
        match self {
            Self::IdleTimeout => "idle_timeout",
            Self::ActiveTimeout => "active_timeout",
            Self::EndOfFlow => "end_of_flow",
            Self::ForcedEnd => "forced_end",
            Self::LackOfResources => "lack_of_resources",
        }
    }
}
