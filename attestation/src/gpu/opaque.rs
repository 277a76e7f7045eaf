//! NVIDIA's opaque data in a report: versions, modes and the firmware id.

use std::collections::BTreeMap;

use serde::Serialize;

/// Types of the fields that are read.
const DRIVER_VERSION: u16 = 3;
const VBIOS_VERSION: u16 = 6;
const NVDEC0_STATUS: u16 = 11;
const CHIP_SKU: u16 = 15;
const PROJECT: u16 = 17;
const PROJECT_SKU: u16 = 18;
const FIRMWARE_ID: u16 = 20;
const PROTECTED_PCIE: u16 = 21;
const FEATURE_FLAG: u16 = 36;

/// Values of a switch: on, off.
const ON: u8 = 0xAA;
const OFF: u8 = 0x55;

/// Opaque data that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpaqueError {
    /// It ends within a field.
    #[error("the report's opaque data ends within a field")]
    Truncated,
    /// A type stands twice.
    #[error("opaque field {field} is there twice")]
    Duplicate {
        /// Its type.
        field: u16,
    },
    /// A required field is not there.
    #[error("opaque field {field} is missing")]
    Missing {
        /// Its type.
        field: u16,
    },
    /// A field has no accepted value.
    #[error("opaque field {field} has no accepted value")]
    Value {
        /// Its type.
        field: u16,
    },
}

/// How the GPU shares its virtual machine with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One GPU passed through.
    Single,
    /// Several GPUs, with encrypted links between them.
    Multiple,
    /// Protected PCIe: links between GPUs are not encrypted, and their switches need evidence of their own.
    ProtectedPcie,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single => "single GPU",
            Self::Multiple => "several GPUs",
            Self::ProtectedPcie => "protected PCIe",
        })
    }
}

/// The fields that are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opaque {
    pub(crate) driver_version: String,
    pub(crate) vbios_version: String,
    pub(crate) nvdec0_is_on: bool,
    /// Project, project SKU and chip SKU, where they are stated.
    pub(crate) board: [Option<String>; 3],
    pub(crate) firmware_id: [u8; 48],
    pub(crate) mode: Mode,
}

impl Opaque {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, OpaqueError> {
        let fields = Fields::parse(bytes)?;
        let protected_pcie = fields.get(PROTECTED_PCIE).map(|_| fields.switch(PROTECTED_PCIE)).transpose()?;
        Ok(Self {
            driver_version: fields.driver_version()?,
            vbios_version: fields.vbios_version()?,
            nvdec0_is_on: fields.switch(NVDEC0_STATUS)?,
            board: [fields.padded(PROJECT)?, fields.padded(PROJECT_SKU)?, fields.padded(CHIP_SKU)?],
            firmware_id: fields.array(FIRMWARE_ID)?,
            mode: fields.mode(protected_pcie.unwrap_or(false))?,
        })
    }
}

/// The fields by type.
struct Fields<'a>(BTreeMap<u16, &'a [u8]>);

impl<'a> Fields<'a> {
    fn parse(mut rest: &'a [u8]) -> Result<Self, OpaqueError> {
        let mut fields = BTreeMap::new();
        while let Some((header, after)) = rest.split_first_chunk::<4>() {
            let [type_low, type_high, length_low, length_high] = *header;
            let field = u16::from_le_bytes([type_low, type_high]);
            let length = usize::from(u16::from_le_bytes([length_low, length_high]));
            let (value, after) = after.split_at_checked(length).ok_or(OpaqueError::Truncated)?;
            if fields.insert(field, value).is_some() {
                return Err(OpaqueError::Duplicate { field });
            }
            rest = after;
        }
        if rest.is_empty() { Ok(Self(fields)) } else { Err(OpaqueError::Truncated) }
    }

    fn get(&self, field: u16) -> Option<&'a [u8]> {
        self.0.get(&field).copied()
    }

    fn array<const N: usize>(&self, field: u16) -> Result<[u8; N], OpaqueError> {
        let value = self.get(field).ok_or(OpaqueError::Missing { field })?;
        value.try_into().map_err(|_| OpaqueError::Value { field })
    }

    fn switch(&self, field: u16) -> Result<bool, OpaqueError> {
        match self.array(field)? {
            [ON] => Ok(true),
            [OFF] => Ok(false),
            _ => Err(OpaqueError::Value { field }),
        }
    }

    fn driver_version(&self) -> Result<String, OpaqueError> {
        let field = DRIVER_VERSION;
        let value = self.get(field).ok_or(OpaqueError::Missing { field })?;
        let (last, text) = value.split_last().ok_or(OpaqueError::Value { field })?;
        if *last != 0 || text.is_empty() {
            return Err(OpaqueError::Value { field });
        }
        printable(text).ok_or(OpaqueError::Value { field })
    }

    fn vbios_version(&self) -> Result<String, OpaqueError> {
        let [d, c, b, a, e, ..]: [u8; 8] = self.array(VBIOS_VERSION)?;
        Ok(format!("{a:02X}.{b:02X}.{c:02X}.{d:02X}.{e:02X}"))
    }

    /// Text padded with NUL; empty text is none.
    fn padded(&self, field: u16) -> Result<Option<String>, OpaqueError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let length = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        let (text, padding) = value.split_at(length);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(OpaqueError::Value { field });
        }
        let text = printable(text).ok_or(OpaqueError::Value { field })?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn mode(&self, protected_pcie: bool) -> Result<Mode, OpaqueError> {
        if self.get(FEATURE_FLAG).is_none() {
            return Ok(if protected_pcie { Mode::ProtectedPcie } else { Mode::Single });
        }
        match u16::from_le_bytes(self.array(FEATURE_FLAG)?) {
            // A report that says both is no report of one mode.
            0 if !protected_pcie => Ok(Mode::Single),
            1 if !protected_pcie => Ok(Mode::Multiple),
            2 => Ok(Mode::ProtectedPcie),
            _ => Err(OpaqueError::Value { field: FEATURE_FLAG }),
        }
    }
}

fn printable(text: &[u8]) -> Option<String> {
    let is_printable = text.iter().all(|byte| (0x21..=0x7E).contains(byte));
    is_printable.then(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (field, value) in list {
            out.extend(field.to_le_bytes());
            out.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
            out.extend(*value);
        }
        out
    }

    fn good() -> Vec<(u16, &'static [u8])> {
        vec![
            (VBIOS_VERSION, &[0x00, 0x9F, 0x00, 0x96, 0x01, 0, 0, 0]),
            (DRIVER_VERSION, b"550.90.07\0"),
            (NVDEC0_STATUS, &[OFF]),
            (FIRMWARE_ID, &[7; 48]),
            (99, b"unknown"),
        ]
    }

    fn with(field: u16, value: &'static [u8]) -> Result<Opaque, OpaqueError> {
        let mut list = good();
        list.retain(|(other, _)| *other != field);
        list.push((field, value));
        Opaque::parse(&fields(&list))
    }

    #[test]
    fn reads_versions_and_mode() {
        let opaque = Opaque::parse(&fields(&good())).unwrap();
        assert_eq!(opaque.driver_version, "550.90.07");
        assert_eq!(opaque.vbios_version, "96.00.9F.00.01");
        assert!(!opaque.nvdec0_is_on);
        assert_eq!(opaque.mode, Mode::Single);
        assert_eq!(with(PROTECTED_PCIE, &[ON]).unwrap().mode, Mode::ProtectedPcie);
        assert_eq!(with(FEATURE_FLAG, &[1, 0]).unwrap().mode, Mode::Multiple);
    }

    #[test]
    fn required_fields_are_required() {
        for field in [DRIVER_VERSION, VBIOS_VERSION, NVDEC0_STATUS, FIRMWARE_ID] {
            let list: Vec<_> = good().into_iter().filter(|(other, _)| *other != field).collect();
            assert_eq!(Opaque::parse(&fields(&list)), Err(OpaqueError::Missing { field }));
        }
    }

    #[test]
    fn values_are_exact() {
        for (field, value) in [
            (DRIVER_VERSION, &b"550"[..]),
            (DRIVER_VERSION, b"\0"),
            (DRIVER_VERSION, b"5 50\0"),
            (VBIOS_VERSION, &[0; 7]),
            (NVDEC0_STATUS, &[0]),
            (NVDEC0_STATUS, &[ON, ON]),
            (FIRMWARE_ID, &[0; 47]),
            (PROJECT, b"10\0\x0110"),
            (PROTECTED_PCIE, &[1]),
            (FEATURE_FLAG, &[3, 0]),
            (FEATURE_FLAG, &[0]),
        ] {
            assert_eq!(with(field, value), Err(OpaqueError::Value { field }), "{field} {value:?}");
        }
    }

    #[test]
    fn no_field_comes_twice_and_none_is_cut() {
        let mut list = good();
        list.push((99, b"again"));
        assert_eq!(Opaque::parse(&fields(&list)), Err(OpaqueError::Duplicate { field: 99 }));
        let bytes = fields(&good());
        for cut in [1, 3, 8] {
            assert_eq!(Opaque::parse(&bytes[..bytes.len() - cut]), Err(OpaqueError::Truncated));
        }
    }
}
