// Straight lines and thresholds: when a curve crosses, and where the last hours point to.

/**
 * The moment (epoch seconds) at which the curve first crosses the threshold, between its points;
 * null: it does not. `start`: the last known {time, value}; `isRising`: from below.
 */
export function crossingTime(start, times, values, threshold, isRising) {
  let before = start;
  for (let i = 0; i < times.length; i += 1) {
    const value = values[i];
    if (!Number.isFinite(value)) continue;
    const isOver = isRising ? value >= threshold : value <= threshold;
    if (isOver) {
      const rise = value - before.value;
      // A band's edge may begin beyond the threshold: then it is the first moment.
      const share = rise === 0 ? 1 : (threshold - before.value) / rise;
      return before.time + Math.min(Math.max(share, 0), 1) * (times[i] - before.time);
    }
    before = { time: times[i], value };
  }
  return null;
}

/**
 * Prometheus' predict_linear: the least-squares line through the newest `spanSeconds` of the history,
 * at `times`. null: fewer than two points.
 */
export function linearPrediction(history, spanSeconds, times) {
  const end = history.times.at(-1);
  let count = 0;
  let sumX = 0;
  let sumY = 0;
  let sumXX = 0;
  let sumXY = 0;
  for (let i = history.times.length - 1; i >= 0 && history.times[i] >= end - spanSeconds; i -= 1) {
    const y = history.values[i];
    if (y === null) continue;
    const x = history.times[i] - end;
    count += 1;
    sumX += x;
    sumY += y;
    sumXX += x * x;
    sumXY += x * y;
  }
  const spread = sumXX - (sumX * sumX) / count;
  if (count < 2 || spread === 0) return null;
  const slope = (sumXY - (sumX * sumY) / count) / spread;
  const level = sumY / count - (slope * sumX) / count;
  return times.map((time) => level + slope * (time - end));
}
