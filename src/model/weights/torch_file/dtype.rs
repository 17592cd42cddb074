//! Types of numbers.

/// The type of a tensor's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    Bool,
    U8,
    I8,
    I16,
    I32,
    I64,
    F16,
    BF16,
    F32,
    F64,
}

impl Dtype {
    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// From the name in Python, such as `torch.float32`.
    pub(super) fn of_python(name: &str) -> Option<Self> {
        Some(match name {
            "torch.bool" => Self::Bool,
            "torch.uint8" => Self::U8,
            "torch.int8" => Self::I8,
            "torch.int16" => Self::I16,
            "torch.int32" => Self::I32,
            "torch.int64" => Self::I64,
            "torch.float16" => Self::F16,
            "torch.bfloat16" => Self::BF16,
            "torch.float32" => Self::F32,
            "torch.float64" => Self::F64,
            _ => return None,
        })
    }
}

/// The elements of a storage, which is what its length counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Number(Dtype),
    /// Bytes whose type each tensor states.
    Byte,
    /// Of so many bytes, for tensors that are ignored.
    Other(u64),
}

impl Element {
    /// From the name of a storage's class in Python, such as `torch.FloatStorage`.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "torch.BoolStorage" => Self::Number(Dtype::Bool),
            "torch.ByteStorage" => Self::Number(Dtype::U8),
            "torch.CharStorage" => Self::Number(Dtype::I8),
            "torch.ShortStorage" => Self::Number(Dtype::I16),
            "torch.IntStorage" => Self::Number(Dtype::I32),
            "torch.LongStorage" => Self::Number(Dtype::I64),
            "torch.HalfStorage" => Self::Number(Dtype::F16),
            "torch.BFloat16Storage" => Self::Number(Dtype::BF16),
            "torch.FloatStorage" => Self::Number(Dtype::F32),
            "torch.DoubleStorage" => Self::Number(Dtype::F64),
            "torch.storage.UntypedStorage" | "torch.UntypedStorage" => Self::Byte,
            "torch.QInt8Storage"
            | "torch.QUInt8Storage"
            | "torch.QUInt4x2Storage"
            | "torch.QUInt2x4Storage" => Self::Other(1),
            "torch.QInt32Storage" => Self::Other(4),
            "torch.ComplexFloatStorage" => Self::Other(8),
            "torch.ComplexDoubleStorage" => Self::Other(16),
            _ => return None,
        })
    }

    pub(super) fn size(self) -> u64 {
        match self {
            Self::Number(dtype) => dtype.size() as u64,
            Self::Byte => 1,
            Self::Other(size) => size,
        }
    }
}
