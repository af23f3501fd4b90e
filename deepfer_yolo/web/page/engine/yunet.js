export async function look() {
  return [];
}
