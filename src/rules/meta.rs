//! Meta rules: arithmetic over other rules' counts, such as `A + B + C >= 2 && !D`.
//!
//! Numbers, rule names, `+ - *`, comparisons, `! && ||` (also `not and or`) and parentheses. A rule's value is how
//! often it hit; a comparison is 1 or 0. No recursion: an expression is kept in reverse Polish order.

/// An expression over rules of type `R`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Meta<R> {
    steps: Vec<Step<R>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step<R> {
    Number(f64),
    Rule(R),
    Do(Operator),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Plus,
    Minus,
    Times,
    Not,
    /// A sign before a value.
    Negate,
}

/// Operators as they are written, longer ones first.
const WRITTEN: [(&str, Operator); 15] = [
    ("||", Operator::Or),
    ("or", Operator::Or),
    ("&&", Operator::And),
    ("and", Operator::And),
    ("not", Operator::Not),
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("+", Operator::Plus),
    ("-", Operator::Minus),
    ("*", Operator::Times),
    ("!", Operator::Not),
];

impl Operator {
    /// Binds the tighter the higher.
    const fn rank(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal | Self::Unequal | Self::Less | Self::AtMost | Self::Greater | Self::AtLeast => 3,
            Self::Plus | Self::Minus => 4,
            Self::Times => 5,
            Self::Not | Self::Negate => 6,
        }
    }

    const fn is_prefix(self) -> bool {
        matches!(self, Self::Not | Self::Negate)
    }

    fn of(self, left: f64, right: f64) -> f64 {
        let truth = |holds: bool| f64::from(u8::from(holds));
        match self {
            Self::Or => truth(left != 0.0 || right != 0.0),
            Self::And => truth(left != 0.0 && right != 0.0),
            Self::Equal => truth(left == right),
            Self::Unequal => truth(left != right),
            Self::Less => truth(left < right),
            Self::AtMost => truth(left <= right),
            Self::Greater => truth(left > right),
            Self::AtLeast => truth(left >= right),
            Self::Plus => left + right,
            Self::Minus => left - right,
            Self::Times => left * right,
            Self::Not => truth(right == 0.0),
            Self::Negate => -right,
        }
    }
}

/// What stands on the stack of operators while reading.
#[derive(Clone, Copy)]
enum Open {
    Operator(Operator),
    Parenthesis,
}

impl Meta<String> {
    /// Reads an expression. The error says what is wrong with it.
    pub(super) fn read(written: &str) -> Result<Self, String> {
        let mut reader = Reader { steps: Vec::new(), open: Vec::new(), wants_value: true };
        let mut rest = written.trim_start();
        while !rest.is_empty() {
            let len = reader.take(rest)?;
            rest = rest[len..].trim_start();
        }
        reader.finish()
    }

    /// Puts what `resolve` knows in the place of names. The error is the first unknown name.
    pub(super) fn resolve<R>(self, resolve: impl Fn(&str) -> Option<R>) -> Result<Meta<R>, String> {
        let step = |step: Step<String>| -> Result<Step<R>, String> {
            Ok(match step {
                Step::Number(number) => Step::Number(number),
                Step::Do(operator) => Step::Do(operator),
                Step::Rule(name) => Step::Rule(resolve(&name).ok_or(name)?),
            })
        };
        Ok(Meta { steps: self.steps.into_iter().map(step).collect::<Result<_, _>>()? })
    }
}

struct Reader {
    steps: Vec<Step<String>>,
    open: Vec<Open>,
    wants_value: bool,
}

impl Reader {
    /// Takes what stands at the front; its length is the answer.
    fn take(&mut self, rest: &str) -> Result<usize, String> {
        let word = rest
            .bytes()
            .take_while(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'.'))
            .count();
        let operator = WRITTEN
            .into_iter()
            .find(|(written, _)| rest.starts_with(written) && (word == 0 || word == written.len()));
        match operator {
            Some((written, operator)) => self.operator(operator).map(|()| written.len()),
            None if rest.starts_with('(') => self.opens().map(|()| 1),
            None if rest.starts_with(')') => self.closes().map(|()| 1),
            None if word > 0 => self.value(&rest[..word]).map(|()| word),
            None => Err(format!("`{}` means nothing here", rest.chars().next().unwrap_or_default())),
        }
    }

    fn value(&mut self, word: &str) -> Result<(), String> {
        if !self.wants_value {
            return Err(format!("an operator is missing before `{word}`"));
        }
        self.wants_value = false;
        self.steps.push(match word.parse() {
            Ok(number) if word.starts_with(|first: char| first.is_ascii_digit()) => Step::Number(number),
            _ => Step::Rule(word.to_owned()),
        });
        Ok(())
    }

    fn operator(&mut self, operator: Operator) -> Result<(), String> {
        let operator =
            if operator == Operator::Minus && self.wants_value { Operator::Negate } else { operator };
        if operator.is_prefix() != self.wants_value {
            return Err("a value is missing beside an operator".into());
        }
        if !operator.is_prefix() {
            while let Some(&Open::Operator(earlier)) = self.open.last()
                && earlier.rank() >= operator.rank()
            {
                self.open.pop();
                self.steps.push(Step::Do(earlier));
            }
        }
        self.open.push(Open::Operator(operator));
        self.wants_value = true;
        Ok(())
    }

    fn opens(&mut self) -> Result<(), String> {
        self.open.push(Open::Parenthesis);
        if self.wants_value { Ok(()) } else { Err("an operator is missing before `(`".into()) }
    }

    fn closes(&mut self) -> Result<(), String> {
        if self.wants_value {
            return Err("a value is missing before `)`".into());
        }
        loop {
            match self.open.pop() {
                Some(Open::Operator(operator)) => self.steps.push(Step::Do(operator)),
                Some(Open::Parenthesis) => return Ok(()),
                None => return Err("a `)` closes nothing".into()),
            }
        }
    }

    fn finish(mut self) -> Result<Meta<String>, String> {
        if self.wants_value {
            return Err("a value is missing at the end".into());
        }
        while let Some(open) = self.open.pop() {
            match open {
                Open::Operator(operator) => self.steps.push(Step::Do(operator)),
                Open::Parenthesis => return Err("a `(` is not closed".into()),
            }
        }
        Ok(Meta { steps: self.steps })
    }
}

impl<R> Default for Meta<R> {
    /// Always 0.
    fn default() -> Self {
        Self { steps: Vec::new() }
    }
}

impl<R> Meta<R> {
    /// The rules it speaks of, in the order it names them.
    pub(super) fn rules(&self) -> impl Iterator<Item = &R> {
        self.steps.iter().filter_map(|step| match step {
            Step::Rule(rule) => Some(rule),
            _ => None,
        })
    }

    /// Its value, given those of the rules.
    pub(super) fn value(&self, of: impl Fn(&R) -> f64) -> f64 {
        let mut stack: Vec<f64> = Vec::new();
        for step in &self.steps {
            let value = match step {
                Step::Number(number) => *number,
                Step::Rule(rule) => of(rule),
                Step::Do(operator) => {
                    let right = stack.pop().unwrap_or_default();
                    let left = if operator.is_prefix() { 0.0 } else { stack.pop().unwrap_or_default() };
                    operator.of(left, right)
                }
            };
            stack.push(value);
        }
        stack.pop().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_count() {
        for (written, value) in [
            ("A", 1.0),
            ("A + B + C >= 2", 1.0),
            ("A + B + C >= 4", 0.0),
            ("B * 2 - 1", 3.0),
            ("!C && A", 1.0),
            ("not C and (A or C)", 1.0),
            ("A - -1 == 2", 1.0),
            ("!!B", 1.0),
            ("A && C || B", 1.0),
            ("(A + B) * 2 != 6", 0.0),
            ("!A + 1", 1.0),
        ] {
            let meta = Meta::read(written).unwrap();
            let of = |name: &String| match name.as_str() {
                "A" => 1.0,
                "B" => 2.0,
                _ => 0.0,
            };
            assert_eq!(meta.value(of), value, "{written}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (written, told) in [
            ("", "a value is missing at the end"),
            ("A B", "an operator is missing before `B`"),
            ("A +", "a value is missing at the end"),
            ("(A", "a `(` is not closed"),
            ("A)", "a `)` closes nothing"),
            ("A % B", "`%` means nothing here"),
            ("&& A", "a value is missing beside an operator"),
        ] {
            assert_eq!(Meta::read(written).unwrap_err(), told, "{written}");
        }
    }
}
