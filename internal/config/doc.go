// Package config turns flags, environment, files, a preset and defaults into one checked [Config].
//
// A [Key] is one line of the table in table.go: path, type, default, range, flag, meaning, foreign names. A node is a value as it
// stands in its source, with its position. A layer is one source after checking; viper lays the layers over each other. [Resolved]
// remembers for every key where its value came from.
//
// Nothing is converted silently: "16", 1.9 and yes aren't 16, 2 and true. All mistakes of all sources are reported together, at most
// twenty ([Findings]), each with file:line:column or the flag it stands in. Viper sees only values that passed the table.
//
// Start at [Load], then read table.go.
package config
