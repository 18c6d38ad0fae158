// Azurite loads its telemetry client even when told not to use it; this one has nothing to send with.
module.exports = {
  setup() {
    throw new Error('telemetry is not installed');
  },
  start() {},
  TelemetryClient: class {},
};
