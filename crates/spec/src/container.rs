//! The ways a container can be made, each a column of its own.

/// How a container is made. Names of all but the default begin with `container:`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ContainerVariant {
    /// Everything anew, owned by the user who runs the tool.
    #[default]
    Plain,
    /// In a user namespace too: root inside is nobody outside.
    Userns,
    /// In a network namespace that was made, with its link, before the clock was started.
    Pooled,
}

impl ContainerVariant {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Userns, Self::Pooled];

    /// The name of its column, and of the backend in plans and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "container",
            Self::Userns => "container:userns",
            Self::Pooled => "container:pooled",
        }
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.name() == name)
    }
}
