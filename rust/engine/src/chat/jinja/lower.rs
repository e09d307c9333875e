//! Rewrites a template so that every operator, method and literal that makes or walks a container is a call of a function
//! whose work is counted ([`operators`](super::operators)).
//!
//! The engine counts its instructions and the bytes it moves, but its own operators visit whatever a list holds, and a
//! list that holds another one twice, sixty times over, takes no memory and has no end. The library parses the template;
//! what it makes of it is written again as source, which only this module's output reaches.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{
    BinOpKind, Call, CallArg, CallType, CompareOpKind, Expr, Filter, Macro, Stmt, UnaryOpKind,
};
use minijinja::machinery::{Span, parse};
use minijinja::value::{Value, ValueKind};

use super::{MAX_ATTRIBUTES, NAME, methods, problem, whitespace};
use crate::{Error, Result};

/// The template in the calls of this module's functions, line by line.
pub(super) fn lower(source: &str) -> Result<String> {
    let template = parse(source, NAME, whitespace()?).map_err(|error| super::does_not_compile(&error))?;
    let mut writer = Writer { out: String::with_capacity(2 * source.len()), line: 1, attributes: BTreeSet::new() };
    writer.statement(&template)?;
    Ok(writer.out)
}

struct Writer {
    out: String,
    /// The line of the output, which follows that of the source, for errors.
    line: u16,
    /// The attributes of namespaces that are assigned to.
    attributes: BTreeSet<String>,
}

impl Writer {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// A tag that stands in the line of the source.
    fn tag(&mut self, opening: &str, span: Span) {
        self.push(opening);
        while self.line < span.start_line {
            self.out.push('\n');
            self.line += 1;
        }
        self.push(" ");
    }

    fn end(&mut self, name: &str) {
        self.push("{% ");
        self.push(name);
        self.push(" %}");
    }

    fn body(&mut self, body: &[Stmt<'_>]) -> Result<()> {
        body.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<()> {
        match statement {
            Stmt::Template(template) => self.body(&template.children)?,
            Stmt::EmitRaw(raw) => {
                if !raw.raw.is_empty() {
                    self.tag("{{", raw.span());
                    self.quoted(raw.raw);
                    self.push(" }}");
                }
            }
            Stmt::EmitExpr(emitted) => {
                self.tag("{{", emitted.span());
                self.expression(&emitted.expr)?;
                self.push(" }}");
            }
            Stmt::ForLoop(each) => {
                self.tag("{%", each.span());
                self.push("for ");
                self.target(&each.target, false)?;
                self.push(" in ");
                self.expression(&each.iter)?;
                self.push("|__iter");
                if let Some(filter) = &each.filter_expr {
                    self.push(" if (");
                    self.expression(filter)?;
                    self.push(")");
                }
                self.push(if each.recursive { " recursive %}" } else { " %}" });
                self.body(&each.body)?;
                if !each.else_body.is_empty() {
                    self.end("else");
                    self.body(&each.else_body)?;
                }
                self.end("endfor");
            }
            Stmt::IfCond(condition) => {
                let mut condition = condition;
                let mut keyword = "if (";
                loop {
                    self.tag("{%", condition.span());
                    self.push(keyword);
                    self.expression(&condition.expr)?;
                    self.push(") %}");
                    self.body(&condition.true_body)?;
                    match condition.false_body.as_slice() {
                        [] => break,
                        [Stmt::IfCond(next)] => {
                            condition = next;
                            keyword = "elif (";
                        }
                        other => {
                            self.end("else");
                            self.body(other)?;
                            break;
                        }
                    }
                }
                self.end("endif");
            }
            Stmt::WithBlock(with) => {
                self.tag("{%", with.span());
                self.push("with ");
                for (index, (target, value)) in with.assignments.iter().enumerate() {
                    self.push(if index > 0 { ", " } else { "" });
                    self.target(target, true)?;
                    self.push(" = ");
                    self.expression(value)?;
                }
                self.push(" %}");
                self.body(&with.body)?;
                self.end("endwith");
            }
            Stmt::Set(set) => {
                self.tag("{%", set.span());
                self.push("set ");
                self.target(&set.target, false)?;
                self.push(" = ");
                self.expression(&set.expr)?;
                self.push(if matches!(set.target, Expr::GetAttr(_)) { "|__store %}" } else { " %}" });
            }
            Stmt::SetBlock(set) => {
                self.tag("{%", set.span());
                self.push("set ");
                self.target(&set.target, false)?;
                if let Some(filter) = &set.filter {
                    self.push("|");
                    self.filters(filter, set.span())?;
                }
                self.push(" %}");
                self.body(&set.body)?;
                self.end("endset");
            }
            Stmt::FilterBlock(block) => {
                self.tag("{%", block.span());
                self.push("filter ");
                self.filters(&block.filter, block.span())?;
                self.push(" %}");
                self.body(&block.body)?;
                self.end("endfilter");
            }
            Stmt::Block(block) => {
                self.tag("{%", block.span());
                self.push("block ");
                self.push(block.name);
                self.push(" %}");
                self.body(&block.body)?;
                self.end("endblock");
            }
            Stmt::Macro(made) => {
                self.tag("{%", made.span());
                self.push("macro ");
                self.push(made.name);
                self.parameters(made)?;
                self.push(" %}");
                self.body(&made.body)?;
                self.end("endmacro");
            }
            Stmt::CallBlock(block) => {
                self.tag("{%", block.span());
                self.push("call");
                self.parameters(&block.macro_decl)?;
                self.push(" ");
                self.call(&block.call, block.span())?;
                self.push(" %}");
                self.body(&block.macro_decl.body)?;
                self.end("endcall");
            }
            Stmt::Continue(_) => self.end("continue"),
            Stmt::Break(_) => self.end("break"),
            Stmt::AutoEscape(other) => return Err(unsupported(other.span(), "autoescape")),
            Stmt::Do(other) => return Err(unsupported(other.span(), "do")),
            Stmt::Import(other) => return Err(unsupported(other.span(), "import")),
            Stmt::FromImport(other) => return Err(unsupported(other.span(), "from")),
            Stmt::Extends(other) => return Err(unsupported(other.span(), "extends")),
            Stmt::Include(other) => return Err(unsupported(other.span(), "include")),
        }
        Ok(())
    }

    fn parameters(&mut self, made: &Macro<'_>) -> Result<()> {
        self.push("(");
        let without_default = made.args.len().saturating_sub(made.defaults.len());
        for (index, argument) in made.args.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.target(argument, true)?;
            if let Some(default) = index.checked_sub(without_default).and_then(|index| made.defaults.get(index)) {
                self.push("=");
                self.expression(default)?;
            }
        }
        self.push(")");
        Ok(())
    }

    /// What is assigned to: a name, several in a tuple, or an attribute of a namespace.
    fn target(&mut self, target: &Expr<'_>, nested: bool) -> Result<()> {
        let names = match target {
            Expr::Var(name) => {
                self.push(name.id);
                return Ok(());
            }
            Expr::GetAttr(attribute) => {
                self.attributes.insert(attribute.name.to_owned());
                if self.attributes.len() > MAX_ATTRIBUTES {
                    let reason = format!("more than {MAX_ATTRIBUTES} attributes of namespaces are not supported");
                    return Err(problem(attribute.span().start_line, &reason));
                }
                self.primary(&attribute.expr)?;
                self.push(".");
                self.push(attribute.name);
                return Ok(());
            }
            Expr::Tuple(names) => &names.items,
            Expr::List(names) => &names.items,
            other => return Err(problem(other.span().start_line, "cannot assign to an expression")),
        };
        self.push(if nested { "(" } else { "" });
        for (index, name) in names.iter().enumerate() {
            self.push(if index > 0 { ", " } else { "" });
            self.target(name, true)?;
        }
        self.push(if names.len() == 1 { "," } else { "" });
        self.push(if nested { ")" } else { "" });
        Ok(())
    }

    /// Filters of a block, which have no value of their own.
    fn filters(&mut self, filter: &Expr<'_>, span: Span) -> Result<()> {
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

    fn arguments(&mut self, arguments: &[CallArg<'_>], suffix: &str) -> Result<()> {
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

    fn call(&mut self, call: &Call<'_>, span: Span) -> Result<()> {
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
    fn expression(&mut self, expression: &Expr<'_>) -> Result<()> {
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
    fn primary(&mut self, expression: &Expr<'_>) -> Result<()> {
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

    fn quoted(&mut self, text: &str) {
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

fn unsupported(span: Span, tag: &str) -> Error {
    problem(span.start_line, &format!("the tag {tag:?} is not supported"))
}
