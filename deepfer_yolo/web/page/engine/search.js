export async function searchFaces() {
  return [];
}
