import { test } from "appwright";

test("a namesake", () => {
  throw new Error("the wrong file was run");
});
