// Ponder asks for one.
import { Hono } from "hono";

export default new Hono();
