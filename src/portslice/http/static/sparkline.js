// A line of the last minute, a few pixels high.

import { colour } from "./theme.js";

const SHOWN = 60;

/** Make the canvas as fine as the screen; its context, in CSS pixels. */
export function sharp(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  const [fineWidth, fineHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== fineWidth || canvas.height !== fineHeight) [canvas.width, canvas.height] = [fineWidth, fineHeight];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

export function sparkline(canvas, ring, colourName, width = 80, height = 22) {
  const context = sharp(canvas, width, height);
  let highest = 0;
  for (let step = 0; step < SHOWN; step += 1) {
    const value = ring.back(step);
    if (value > highest) highest = value;
  }
  const top = (value) => height - 1.5 - (highest && value / highest) * (height - 4);
  const line = new Path2D();
  const area = new Path2D();
  let open = false;
  let x = 0;
  for (let step = SHOWN - 1; step >= 0; step -= 1) {
    const value = ring.back(step);
    x = width - 1 - (step * (width - 2)) / (SHOWN - 1);
    if (Number.isNaN(value)) {
      if (open) area.lineTo(x, height);
      open = false;
    } else if (open) {
      line.lineTo(x, top(value));
      area.lineTo(x, top(value));
    } else {
      line.moveTo(x, top(value));
      area.moveTo(x, height);
      area.lineTo(x, top(value));
      open = true;
    }
  }
  if (open) area.lineTo(x, height);
  context.fillStyle = context.strokeStyle = colour(colourName);
  context.globalAlpha = 0.16;
  context.fill(area);
  context.globalAlpha = 1;
  context.lineWidth = 1.25;
  context.lineJoin = "round";
  context.stroke(line);
}
