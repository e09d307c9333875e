//! Expressions of a template, written as calls.

use minijinja::machinery::Span;
use minijinja::machinery::ast::{BinOpKind, Call, CallArg, CallType, CompareOpKind, Expr, Filter, UnaryOpKind};
use minijinja::value::{Value, ValueKind};

use super::super::{methods, problem};
use super::Writer;
use crate::Result;

impl Writer {
    /// Filters of a block, which have no value of their own.
    pub(super) fn filters(&mut self, filter: &Expr<'_>, span: Span) -> Result<()> {
        let Expr::Filter(filter) = filter else { return Err(problem(span.start_line, "a filter is missing")) };
        if let Some(before) = &filter.expr {
            self.filters(before, span)?;
            self.push("|");
        }
        self.filter(filter, span)
    }

    fn filter(&mut self, filter: &Filter<'_>, span: Span) -> Result<()> {
        // As in Jinja an unknown one is an error only where it is used: templates for several programs ask first.
        if filter.name.starts_with("__") {
            return Err(problem(span.start_line, &format!("the filter {:?} is unknown", filter.name)));
        }
        self.push(filter.name);
        self.push("(");
        self.arguments(&filter.args, "")?;
        self.push(")");
        Ok(())
    }

    pub(super) fn arguments(&mut self, arguments: &[CallArg<'_>], suffix: &str) -> Result<()> {
        for (index, argument) in arguments.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            match argument {
                CallArg::Pos(value) => self.expression(value)?,
                CallArg::Kwarg(name, value) => {
                    self.push(name);
                    self.push("=");
                    self.expression(value)?;
                }
                CallArg::PosSplat(value) => {
                    self.push("*");
                    self.primary(value)?;
                }
                CallArg::KwargSplat(value) => {
                    self.push("**");
                    self.primary(value)?;
                }
            }
            self.push(suffix);
        }
        Ok(())
    }

    pub(super) fn call(&mut self, call: &Call<'_>, span: Span) -> Result<()> {
        match call.identify_call() {
            CallType::Function(name) => {
                self.push(name);
                self.push("(");
                // The loop's own name starts it again, in a recursive one.
                self.arguments(&call.args, if name == "loop" { "|__iter" } else { "" })?;
                self.push(")");
            }
            CallType::Method(value, name) => {
                self.expression(value)?;
                self.push("|__method(");
                self.quoted(name);
                self.push(if call.args.is_empty() { "" } else { ", " });
                self.arguments(&call.args, "")?;
                self.push(")");
            }
            CallType::Block(name) => {
                self.push("self.");
                self.push(name);
                self.push("()");
            }
            CallType::Object(_) => {
                return Err(problem(span.start_line, "only functions and methods can be called"));
            }
        }
        Ok(())
    }

    /// An operator that is a filter of this module.
    fn operator(&mut self, left: &Expr<'_>, name: &str, right: &Expr<'_>) -> Result<()> {
        self.expression(left)?;
        self.push("|");
        self.push(name);
        self.push("(");
        self.expression(right)?;
        self.push(")");
        Ok(())
    }

    /// An operator of numbers, or one that decides which side is evaluated, which the engine may compute.
    fn native(&mut self, left: &Expr<'_>, operator: &str, right: &Expr<'_>) -> Result<()> {
        self.push("((");
        self.expression(left)?;
        self.push(") ");
        self.push(operator);
        self.push(" (");
        self.expression(right)?;
        self.push("))");
        Ok(())
    }

    /// `a and b and c`, without a nesting for each.
    fn logical(&mut self, operator: BinOpKind, operands: [&Expr<'_>; 2]) -> Result<()> {
        let mut flat = Vec::new();
        let [mut left, right] = operands;
        flat.push(right);
        while let Expr::BinOp(inner) = left
            && same_logical(inner.op, operator)
        {
            flat.push(&inner.right);
            left = &inner.left;
        }
        flat.push(left);
        self.push("(");
        for (index, operand) in flat.into_iter().rev().enumerate() {
            let keyword = if matches!(operator, BinOpKind::ScAnd) { " and " } else { " or " };
            self.push(if index > 0 { keyword } else { "" });
            self.push("(");
            self.expression(operand)?;
            self.push(")");
        }
        self.push(")");
        Ok(())
    }

    /// An expression, written so that a filter can follow it.
    pub(super) fn expression(&mut self, expression: &Expr<'_>) -> Result<()> {
        let line = expression.span().start_line;
        match expression {
            Expr::Var(name) => self.push(name.id),
            Expr::Const(constant) => self.constant(&constant.value, line)?,
            Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                self.push("|__slice(");
                for (index, bound) in [&slice.start, &slice.stop, &slice.step].into_iter().enumerate() {
                    self.push(if index > 0 { ", " } else { "" });
                    match bound {
                        Some(bound) => self.expression(bound)?,
                        None => self.push("none"),
                    }
                }
                self.push(")");
            }
            Expr::UnaryOp(unary) => {
                self.push(match unary.op {
                    UnaryOpKind::Not => "(not (",
                    UnaryOpKind::Neg => "(-(",
                });
                self.expression(&unary.expr)?;
                self.push("))");
            }
            Expr::BinOp(binary) => {
                let (left, right) = (&binary.left, &binary.right);
                match binary.op {
                    BinOpKind::ScAnd | BinOpKind::ScOr => self.logical(binary.op, [left, right])?,
                    BinOpKind::Add => self.operator(left, "__add", right)?,
                    BinOpKind::Mul => self.operator(left, "__mul", right)?,
                    BinOpKind::Rem => self.operator(left, "__rem", right)?,
                    BinOpKind::Concat => self.operator(left, "__concat", right)?,
                    BinOpKind::Sub => self.native(left, "-", right)?,
                    BinOpKind::Div => self.native(left, "/", right)?,
                    BinOpKind::FloorDiv => self.native(left, "//", right)?,
                    BinOpKind::Pow => self.native(left, "**", right)?,
                    BinOpKind::Eq => self.comparison(left, [("==", right)])?,
                    BinOpKind::Ne => self.comparison(left, [("!=", right)])?,
                    BinOpKind::Lt => self.comparison(left, [("<", right)])?,
                    BinOpKind::Lte => self.comparison(left, [("<=", right)])?,
                    BinOpKind::Gt => self.comparison(left, [(">", right)])?,
                    BinOpKind::Gte => self.comparison(left, [(">=", right)])?,
                    BinOpKind::In => self.comparison(left, [("in", right)])?,
                }
            }
            Expr::Compare(compare) => {
                self.comparison(&compare.expr, compare.ops.iter().map(|op| (sign(op.op), &op.expr)))?;
            }
            Expr::IfExpr(choice) => {
                self.push("((");
                self.expression(&choice.true_expr)?;
                self.push(") if (");
                self.expression(&choice.test_expr)?;
                self.push(")");
                if let Some(other) = &choice.false_expr {
                    self.push(" else (");
                    self.expression(other)?;
                    self.push(")");
                }
                self.push(")");
            }
            Expr::Filter(filter) => {
                match &filter.expr {
                    Some(value) => self.expression(value)?,
                    None => return Err(problem(line, "a filter has no value")),
                }
                self.push("|");
                self.filter(filter, filter.span())?;
            }
            Expr::Test(test) => {
                let name = match test.name {
                    "==" => "eq",
                    "!=" => "ne",
                    "<" => "lt",
                    "<=" => "le",
                    ">" => "gt",
                    ">=" => "ge",
                    name => name,
                };
                self.push("((");
                self.expression(&test.expr)?;
                self.push(") is ");
                self.push(name);
                if !test.args.is_empty() {
                    self.push("(");
                    self.arguments(&test.args, "")?;
                    self.push(")");
                }
                self.push(")");
            }
            Expr::GetAttr(attribute) if methods::is_method(attribute.name) => {
                self.expression(&attribute.expr)?;
                self.push("|__attr(");
                self.quoted(attribute.name);
                self.push(")");
            }
            Expr::GetAttr(attribute) => {
                self.primary(&attribute.expr)?;
                self.push(".");
                self.push(attribute.name);
            }
            Expr::GetItem(item) => self.operator(&item.expr, "__item", &item.subscript_expr)?,
            Expr::Call(call) => self.call(call, call.span())?,
            Expr::List(list) => {
                self.push("[");
                self.all(&list.items)?;
                self.push("]|__list");
            }
            Expr::Tuple(list) => {
                self.push("(");
                self.all(&list.items)?;
                self.push(if list.items.is_empty() { ")|__list" } else { ",)|__list" });
            }
            Expr::Map(map) => {
                self.push("[");
                for (key, value) in map.keys.iter().zip(&map.values) {
                    self.expression(key)?;
                    self.push(", ");
                    self.expression(value)?;
                    self.push(", ");
                }
                self.push("]|__dict");
            }
        }
        Ok(())
    }

    fn all(&mut self, items: &[Expr<'_>]) -> Result<()> {
        for (index, item) in items.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.expression(item)?;
        }
        Ok(())
    }

    fn comparison<'e, 's: 'e>(
        &mut self,
        first: &Expr<'_>,
        rest: impl IntoIterator<Item = (&'static str, &'e Expr<'s>)>,
    ) -> Result<()> {
        self.expression(first)?;
        self.push("|__compare(");
        for (index, (operator, operand)) in rest.into_iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.quoted(operator);
            self.push(", ");
            self.expression(operand)?;
        }
        self.push(")");
        Ok(())
    }

    /// An expression, written so that an attribute can follow it.
    pub(super) fn primary(&mut self, expression: &Expr<'_>) -> Result<()> {
        let is_primary = match expression {
            Expr::Var(_) => true,
            Expr::GetAttr(attribute) => !methods::is_method(attribute.name),
            _ => false,
        };
        self.push(if is_primary { "" } else { "(" });
        self.expression(expression)?;
        self.push(if is_primary { "" } else { ")" });
        Ok(())
    }

    fn constant(&mut self, value: &Value, line: u16) -> Result<()> {
        match value.kind() {
            ValueKind::None => self.push("none"),
            ValueKind::Bool => self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::String => self.quoted(value.as_str().unwrap_or_default()),
            ValueKind::Number if value.is_integer() => self.push(&format!("({value})")),
            ValueKind::Number => match f64::try_from(value.clone()) {
                // Without an exponent.
                Ok(number) if number.is_finite() => {
                    let digits = number.to_string();
                    let point = if digits.contains('.') { "" } else { ".0" };
                    self.push(&format!("({digits}{point})"));
                }
                _ => return Err(problem(line, "a number is too large")),
            },
            _ => return Err(problem(line, "a constant is not supported")),
        }
        Ok(())
    }

    pub(super) fn quoted(&mut self, text: &str) {
        self.out.push('"');
        for character in text.chars() {
            match character {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                // So that lines are those of the source.
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                _ => self.out.push(character),
            }
        }
        self.out.push('"');
    }
}

fn same_logical(a: BinOpKind, b: BinOpKind) -> bool {
    matches!((a, b), (BinOpKind::ScAnd, BinOpKind::ScAnd) | (BinOpKind::ScOr, BinOpKind::ScOr))
}

fn sign(operator: CompareOpKind) -> &'static str {
    match operator {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => "in",
        CompareOpKind::NotIn => "not in",
    }
}
