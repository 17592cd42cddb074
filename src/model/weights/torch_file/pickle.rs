//! Pickle's stack machine.

use std::collections::HashMap;
use std::io::{Read, Seek};

use super::TorchFileError;
use super::input::Input;
use super::limits::{MAX_GLOBAL, MAX_LONG, MAX_OPERATIONS, MAX_TEXT, check};
use super::opcode as op;
use super::rebuild;
use super::stack::Stack;
use super::value::{Heap, Object, Value};

/// The newest protocol.
const NEWEST: u8 = 5;

/// Reads one pickle: what it builds, and the value that it leaves.
pub(super) fn load<R: Read + Seek>(input: &mut Input<R>) -> Result<(Heap, Value), TorchFileError> {
    let mut machine = Machine {
        input,
        heap: Heap::default(),
        stack: Stack::default(),
        memo: HashMap::new(),
    };
    for _ in 0..MAX_OPERATIONS {
        match machine.input.byte()? {
            op::STOP => return Ok((std::mem::take(&mut machine.heap), machine.stack.pop()?)),
            opcode => machine.step(opcode)?,
        }
    }
    Err(TorchFileError::TooMany {
        what: "pickle operations",
        most: MAX_OPERATIONS,
    })
}

struct Machine<'a, R> {
    input: &'a mut Input<R>,
    heap: Heap,
    stack: Stack,
    memo: HashMap<u32, Value>,
}

impl<R: Read + Seek> Machine<'_, R> {
    fn step(&mut self, opcode: u8) -> Result<(), TorchFileError> {
        match opcode {
            op::PROTO if self.input.byte()? > NEWEST => {
                return Err(TorchFileError::damaged(
                    "its pickle protocol does not exist",
                ));
            }
            op::PROTO => {}
            op::FRAME => self.input.skip(8)?,
            op::MARK => self.stack.mark(),
            op::POP => self.stack.drop_top()?,
            op::POP_MARK => {
                self.stack.pop_mark()?;
            }

            op::NONE => self.stack.push(Value::None),
            op::NEWTRUE => self.stack.push(Value::Bool(true)),
            op::NEWFALSE => self.stack.push(Value::Bool(false)),
            op::INT => self.int_in_text()?,
            op::BININT => {
                let int = i32::from_le_bytes(self.input.array()?);
                self.stack.push(Value::Int(int.into()));
            }
            op::BININT1 => {
                let int = self.input.byte()?;
                self.stack.push(Value::Int(int.into()));
            }
            op::BININT2 => {
                let int = u16::from_le_bytes(self.input.array()?);
                self.stack.push(Value::Int(int.into()));
            }
            op::LONG1 | op::LONG4 => self.long(opcode)?,
            op::BINFLOAT => self.ignore(8)?,

            op::SHORT_BINSTRING
            | op::BINSTRING
            | op::SHORT_BINUNICODE
            | op::BINUNICODE
            | op::BINUNICODE8 => self.text(opcode)?,
            op::SHORT_BINBYTES | op::BINBYTES | op::BINBYTES8 | op::BYTEARRAY8 => {
                let length = self.length(opcode)?;
                self.ignore(length)?;
            }

            op::EMPTY_TUPLE => self.add(Object::Tuple(Box::default()))?,
            op::TUPLE => {
                let items = self.stack.pop_mark()?;
                self.add(Object::Tuple(items.into()))?;
            }
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => self.tuple(opcode - op::TUPLE1 + 1)?,
            op::EMPTY_LIST => self.add(Object::List(Vec::new()))?,
            op::EMPTY_DICT => self.add(Object::Dict(Vec::new()))?,
            op::EMPTY_SET => self.stack.push(Value::Ignored),
            op::APPEND => {
                let item = self.stack.pop()?;
                self.extend(vec![item])?;
            }
            op::APPENDS | op::ADDITEMS => {
                let items = self.stack.pop_mark()?;
                self.extend(items)?;
            }
            op::SETITEM => {
                let value = self.stack.pop()?;
                let key = self.stack.pop()?;
                self.set_items(&[key, value])?;
            }
            op::SETITEMS => {
                let items = self.stack.pop_mark()?;
                self.set_items(&items)?;
            }
            op::FROZENSET => {
                self.stack.pop_mark()?;
                self.stack.push(Value::Ignored);
            }

            op::BINPUT => {
                let place = self.input.byte()?.into();
                self.put(place)?;
            }
            op::LONG_BINPUT => {
                let place = u32::from_le_bytes(self.input.array()?);
                self.put(place)?;
            }
            op::MEMOIZE => self.put(self.memo.len() as u32)?,
            op::BINGET => {
                let place = self.input.byte()?.into();
                self.get(place)?;
            }
            op::LONG_BINGET => {
                let place = u32::from_le_bytes(self.input.array()?);
                self.get(place)?;
            }

            op::GLOBAL => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(&module, &name)?;
            }
            op::STACK_GLOBAL => {
                let (name, module) = (self.stack.pop()?, self.stack.pop()?);
                let texts = (self.heap.text(module), self.heap.text(name));
                let (Some(module), Some(name)) = texts else {
                    return Err(TorchFileError::damaged("a class in it has no name"));
                };
                let (module, name) = (module.to_owned(), name.to_owned());
                self.global(&module, &name)?;
            }
            op::REDUCE | op::NEWOBJ => {
                let (arguments, function) = (self.stack.pop()?, self.stack.pop()?);
                let made = rebuild::call(&mut self.heap, function, arguments)?;
                self.stack.push(made);
            }
            op::NEWOBJ_EX => {
                self.stack.pop()?;
                self.stack.pop()?;
            }
            op::OBJ => {
                let made = self.stack.pop_mark()?;
                let class = made
                    .first()
                    .ok_or_else(|| TorchFileError::damaged("an object in it has no class"))?;
                self.stack.push(*class);
            }
            op::BUILD => {
                self.stack.pop()?;
            }
            op::BINPERSID => {
                let id = self.stack.pop()?;
                let named = rebuild::persistent(&mut self.heap, id)?;
                self.stack.push(named);
            }
            _ => {
                let message = format!("torch.save never writes the pickle opcode {opcode:#04x}");
                return Err(TorchFileError::Damaged(message));
            }
        }
        Ok(())
    }

    fn add(&mut self, object: Object) -> Result<(), TorchFileError> {
        let value = self.heap.add(object)?;
        self.stack.push(value);
        Ok(())
    }

    /// The length that follows an opcode, in one, four or eight bytes.
    fn length(&mut self, opcode: u8) -> Result<u64, TorchFileError> {
        Ok(match opcode {
            op::LONG1 | op::SHORT_BINSTRING | op::SHORT_BINUNICODE | op::SHORT_BINBYTES => {
                self.input.byte()?.into()
            }
            op::LONG4 | op::BINSTRING | op::BINUNICODE | op::BINBYTES => {
                u32::from_le_bytes(self.input.array()?).into()
            }
            _ => u64::from_le_bytes(self.input.array()?),
        })
    }

    fn ignore(&mut self, length: u64) -> Result<(), TorchFileError> {
        self.input.skip(length)?;
        self.stack.push(Value::Ignored);
        Ok(())
    }

    /// Python 2 writes names as bytes too, and may write any bytes so.
    fn text(&mut self, opcode: u8) -> Result<(), TorchFileError> {
        let length = self.length(opcode)?;
        if length > MAX_TEXT {
            return self.ignore(length);
        }
        match String::from_utf8(self.input.bytes(length)?) {
            Ok(text) => self.add(Object::Text(text.into())),
            Err(_) => {
                self.stack.push(Value::Ignored);
                Ok(())
            }
        }
    }

    fn int_in_text(&mut self) -> Result<(), TorchFileError> {
        let line = self.input.line()?;
        self.stack.push(match line.as_str() {
            "00" => Value::Bool(false),
            "01" => Value::Bool(true),
            digits => digits.parse().map_or(Value::Ignored, Value::Int),
        });
        Ok(())
    }

    fn long(&mut self, opcode: u8) -> Result<(), TorchFileError> {
        let length = self.length(opcode)?;
        if length > MAX_LONG {
            return self.ignore(length);
        }
        let bytes = self.input.bytes(length)?;
        if bytes.len() > 8 {
            return self.add(Object::Long(bytes.into()));
        }
        let negative = bytes.last().is_some_and(|byte| byte >> 7 == 1);
        let mut whole = if negative { [0xff; 8] } else { [0; 8] };
        whole[..bytes.len()].copy_from_slice(&bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(whole)));
        Ok(())
    }

    fn tuple(&mut self, length: u8) -> Result<(), TorchFileError> {
        let mut items = Vec::with_capacity(length.into());
        for _ in 0..length {
            items.push(self.stack.pop()?);
        }
        items.reverse();
        self.add(Object::Tuple(items.into()))
    }

    fn extend(&mut self, items: Vec<Value>) -> Result<(), TorchFileError> {
        let target = self.stack.top()?;
        match self.heap.get_mut(target) {
            Some(Object::List(list)) => list.extend(items),
            Some(Object::Global(_)) => {}
            None if target == Value::Ignored => {}
            _ => return Err(TorchFileError::damaged("it appends to what is no list")),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Value]) -> Result<(), TorchFileError> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(TorchFileError::damaged("a key in it has no value"));
        }
        match self.heap.get_mut(self.stack.top()?) {
            Some(Object::Dict(dict)) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            Some(Object::Global(_)) => {}
            _ => {
                return Err(TorchFileError::damaged(
                    "it sets a key of what is no dictionary",
                ));
            }
        }
        Ok(())
    }

    fn put(&mut self, place: u32) -> Result<(), TorchFileError> {
        let top = self.stack.top()?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn get(&mut self, place: u32) -> Result<(), TorchFileError> {
        let value = self.memo.get(&place).copied();
        let value =
            value.ok_or_else(|| TorchFileError::damaged("it recalls what it never kept"))?;
        self.stack.push(value);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), TorchFileError> {
        check(
            module.len() + name.len(),
            MAX_GLOBAL,
            "bytes in the name of a class",
        )?;
        self.add(Object::Global(format!("{module}.{name}").into()))
    }
}
