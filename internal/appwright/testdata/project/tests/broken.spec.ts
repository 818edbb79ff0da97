import { test } from "appwright";

test("never", async () => {
  const = 3;
});
