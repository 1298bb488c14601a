// Package derive computes columns of a row from the other columns of the same row: transforms, calendar values,
// expressions, conditions, and numbers of texts.
//
// What enters: definitions (Def) with the fields of the columns that they read, and then batches of such columns. What
// leaves: the same columns with one or more columns for each definition behind them. A row's values depend on that row
// alone: nothing may be assumed about the order of rows, how they are cut into batches, or what was computed before,
// and the bits of the result do not depend on them. A definition may read columns of the definitions before it.
//
// # Kinds
//
//	value         the column itself: Int64, Decimal or Float64
//	calendar      a value of the event time on the zone's clock (CalendarNames)
//	cyclic        NAME_sin and NAME_cos of 2 pi v/period for a calendar value v, period being the value's own:
//	              hour 24, minute_of_day 1440, weekday 7, day 31, yearday 366, week 53, month 12
//	log           ln(1+x), and 0 for x below 0
//	clip          x, and Min below it, Max above it
//	bins          how many of the ascending Edges are at most x
//	hash          a number below Buckets: Hash(value) mod Buckets; a whole number is hashed as its decimal text, so
//	              that an id has one hash whether it came as a number or as a text
//	vocabulary    the place of a text or whole number in Values, from 1; 0 where it is not there
//	expr          an expression
//	condition     an expression that has to be a condition
//	length        characters (code points) of a text
//	words         words of a text
//	sentiment     mean weight of the words of a small English lexicon, -1 to 1, and 0 without any
//	hashed_words  NAME_0 .. NAME_(Buckets-1): how many words of a text fall into each bucket
//
// # Nothing, and not a number
//
// A null gives null, or Def.Null where there is one. What is not a finite number (a division by zero, a logarithm of 0,
// a whole number beyond 64 bits, a decimal of 10^18 units and more, a NaN or infinity that came in a column) gives
// Def.Empty, or 0. A condition that is null is 0.
//
// # Expressions
//
// They are read by github.com/expr-lang/expr, whose grammar and precedences hold (`not` binds closer than a
// comparison, `??` needs brackets beside other operators), and are computed here, on columns, with fixed types:
//
//   - Numbers are Int64 or float64. + - * of two whole numbers, their %, abs, min and max stay exact whole numbers;
//     one that leaves 64 bits, and a remainder by zero, count as not a number. / ** and all that has a float64 in it
//     are float64. % is the remainder with the sign of the left side.
//   - A Decimal enters as float64(v)/10^scale, one division. Compared with a decimal of its scale or with a number
//     written in the expression, it is compared exactly, and so is a whole number.
//   - int(x) cuts towards zero, round(x) goes to the nearest, halves away from zero, log is the natural logarithm, len
//     counts code points, lower, upper and trim are those of Unicode.
//   - A condition is no number: int(c) makes it 1 or 0. A whole number may stand for a condition (0 is no).
//   - Comparisons with not-a-number are false, and != is true, as in IEEE 754, for whole numbers beyond 64 bits too.
//   - A time may be compared with a time, and the difference of two is seconds, a float64.
//   - Null: an operation on null is null; `false and null` is false and `true or null` is true; c ? a : b is null where
//     c is, and does not mind the null of the side not taken; x ?? y is y where x is null; x == nil asks for null.
//
// # Numbers of texts
//
// A word is a run of letters, marks and digits of Unicode; an apostrophe within it is part of it. Words are compared
// and hashed in lower case (simple folding, rune by rune), with the typographic apostrophe as the plain one. Scripts
// without spaces give one word for each run. sentiment takes the words that stand in lexicon.txt; one of the three
// words before it, in the same clause, that negates (not, never, don't ...) turns its weight to minus half.
//
// Hash is FNV-1a of 64 bits over the UTF-8 bytes, followed by the finaliser of MurmurHash3 (Appleby), because the
// lowest bits of FNV-1a alone depend on the lowest bits of the bytes alone. It will not be changed.
//
// # What is not obvious
//
//   - A Program works in blocks of rows whose registers stay in a core's cache; a register is a slice of the column
//     itself where a column is read as it is.
//   - A mask byte of a register has two bits, null and undefined; undefined is the not-a-number of whole numbers. No
//     mask is made or read where a block has neither.
//   - Texts that lower and upper make live in memory of the Program until its next Run.
//   - Equal parts of several definitions are computed once.
package derive
