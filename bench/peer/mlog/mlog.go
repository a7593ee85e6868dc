// Package mlog takes the place of monis.app/mlog, the log library of azure-workload-identity, which not every module proxy
// has. It contains what the webhook uses, and writes with log/slog. The webhook logs nothing about an admission that
// succeeds, so this package does not change what the benchmark measures.
package mlog

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
)

// LogLevel is the value of --log-level. The empty level shows warnings and errors.
type LogLevel string

const (
	LevelWarning LogLevel = ""
	LevelInfo    LogLevel = "info"
	LevelDebug   LogLevel = "debug"
	LevelTrace   LogLevel = "trace"
	LevelAll     LogLevel = "all"
)

// LogFormat is the format of all lines.
type LogFormat string

// FormatJSON is the only format.
const FormatJSON LogFormat = "json"

// LogSpec is the configuration of the log.
type LogSpec struct {
	Level  LogLevel
	Format LogFormat
}

var (
	severities = map[LogLevel]slog.Level{
		LevelWarning: slog.LevelWarn,
		LevelInfo:    slog.LevelInfo,
		LevelDebug:   slog.LevelDebug,
		LevelTrace:   slog.LevelDebug - 1,
		LevelAll:     slog.LevelDebug - 2,
	}
	minimum = new(slog.LevelVar)
	handler = slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: minimum})
)

// ValidateAndSetLogLevelAndFormatGlobally sets the level of all loggers.
func ValidateAndSetLogLevelAndFormatGlobally(_ context.Context, spec LogSpec) error {
	severity, ok := severities[spec.Level]
	if !ok {
		return fmt.Errorf("unknown log level %q", spec.Level)
	}
	minimum.Set(severity)
	return nil
}

// Enabled reports whether lines of this level are written.
func Enabled(level LogLevel) bool {
	return handler.Enabled(context.Background(), severities[level])
}

// Setup returns what is called at the end of the process.
func Setup() func() { return func() {} }

// Logr is the logger of controller-runtime.
func Logr() logr.Logger { return logr.FromSlogHandler(handler) }

// Fatal ends the process with this error.
func Fatal(err error) {
	New().Error("the process ends", err)
	os.Exit(1)
}

// Logger is a logger with a name and values.
type Logger struct{ log *slog.Logger }

// New is a logger without a name and without values.
func New() Logger { return Logger{slog.New(handler)} }

// WithName adds a name.
func (l Logger) WithName(name string) Logger { return l.WithValues("logger", name) }

// WithValues adds values.
func (l Logger) WithValues(keysAndValues ...any) Logger { return Logger{l.log.With(keysAndValues...)} }

// Info writes a line of the level info.
func (l Logger) Info(message string, keysAndValues ...any) { l.log.Info(message, keysAndValues...) }

// Error writes a line of the level error.
func (l Logger) Error(message string, err error, keysAndValues ...any) {
	l.log.With(keysAndValues...).Error(message, "err", err)
}
