//! What became of a connection.

/// Whether a flow is open: the rule field `flow.state`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowState {
    /// Opened, not answered.
    New,
    /// Both ends have sent.
    #[default]
    Established,
    /// Ended in the ordinary way.
    Closed,
    /// Refused, reset before an answer, or never answered.
    Failed,
}

impl FlowState {
    /// The word for it in rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Closed => "closed",
            Self::Failed => "failed",
        }
    }
}
